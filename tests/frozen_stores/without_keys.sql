-- A store from before events had keys, when an `event_id` was unique.
CREATE TABLE events ("offset" INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE,
user_id TEXT NOT NULL, item_id TEXT NOT NULL, type TEXT NOT NULL, time INTEGER NOT NULL, value REAL,
surface TEXT, recommendation_id TEXT, position INTEGER, propensity REAL);
CREATE INDEX events_of_user ON events (user_id, "offset");
INSERT INTO events ("offset", event_id, user_id, item_id, type, time)
VALUES (3, 'e1', 'u1', 'i1', 'click', 1001), (8, 'e2', 'u1', 'i2', 'click', 1002);
