-- A store that handsell wrote before its tables had revisions (events, slates, blocks).
BEGIN TRANSACTION;
CREATE TABLE blocks (user_id TEXT PRIMARY KEY, creators TEXT NOT NULL, tags TEXT NOT NULL);
INSERT INTO "blocks" VALUES('u1','["c1"]','["t1"]');
CREATE TABLE events (
    "offset" INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT, user_id TEXT NOT NULL, item_id TEXT NOT NULL, type TEXT NOT NULL, time INTEGER NOT NULL,
    value REAL, surface TEXT, recommendation_id TEXT, position INTEGER, propensity REAL, key INTEGER NOT NULL UNIQUE
);
INSERT INTO "events" VALUES(1,'e0','u1','i0','click',1000,0.0,'home','r1',0,NULL,3570533916463097233);
INSERT INTO "events" VALUES(2,'e1','ü ''2''','i1','click',1001,0.5,'home','r1',1,NULL,686735978572453515);
INSERT INTO "events" VALUES(3,'e2','u1','i2','click',1002,1.0,'home','r1',2,NULL,-3498862633808964449);
INSERT INTO "events" VALUES(4,'e3','ü ''2''','i3','click',1003,1.5,'home','r1',3,NULL,351361494570484855);
INSERT INTO "events" VALUES(5,NULL,'u1','i9','buy',2000,NULL,NULL,NULL,NULL,NULL,8636987080912712187);
INSERT INTO "events" VALUES(6,'e7','u1','i7','buy',2100,NULL,NULL,NULL,NULL,NULL,-9189053508597393954);
INSERT INTO "events" VALUES(9,'late','u1','i0','click',1000,0.0,'home','r1',0,NULL,2041627137293106006);
CREATE TABLE slates (
    "offset" INTEGER PRIMARY KEY AUTOINCREMENT,
    recommendation_id TEXT NOT NULL UNIQUE, gateway TEXT NOT NULL, sequence INTEGER NOT NULL, time INTEGER NOT NULL,
    user_id TEXT, surface TEXT NOT NULL, bundle TEXT NOT NULL, items TEXT NOT NULL
);
INSERT INTO "slates" VALUES(1,'r1','g1',1,1001,'u1','home','b1','{"item_id":["a","b"],"score":[0.5,0.4],"propensity":[1,1],"sources":[["x"],[]]}');
INSERT INTO "slates" VALUES(2,'r2','g1',2,1002,NULL,'home','b1','{"item_id":["a","b"],"score":[0.5,0.4],"propensity":[1,1],"sources":[["x"],[]]}');
INSERT INTO "slates" VALUES(3,'r4','g1',4,1004,NULL,'home','b1','{"item_id":["a","b"],"score":[0.5,0.4],"propensity":[1,1],"sources":[["x"],[]]}');
CREATE INDEX events_of_user ON events (user_id, "offset");
CREATE INDEX slates_of_user ON slates (user_id, time);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',9);
INSERT INTO "sqlite_sequence" VALUES('slates',3);
COMMIT;
