-- A PostgreSQL store of revision 0001 (pg_dump --inserts).
CREATE TABLE alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE blocks (
    user_id text NOT NULL,
    creators text NOT NULL,
    tags text NOT NULL
);
CREATE TABLE events (
    "offset" bigint NOT NULL,
    event_id text,
    user_id text NOT NULL,
    item_id text NOT NULL,
    type text NOT NULL,
    "time" bigint NOT NULL,
    value double precision,
    surface text,
    recommendation_id text,
    "position" bigint,
    propensity double precision,
    key bigint NOT NULL
);
CREATE TABLE slates (
    "offset" bigint NOT NULL,
    recommendation_id text NOT NULL,
    gateway text NOT NULL,
    sequence bigint NOT NULL,
    "time" bigint NOT NULL,
    user_id text,
    surface text NOT NULL,
    bundle text NOT NULL,
    items text NOT NULL
);
INSERT INTO alembic_version VALUES ('0001');
INSERT INTO blocks VALUES ('u1', '["c1"]', '["t1"]');
INSERT INTO events VALUES (1, 'e0', 'u1', 'i0', 'click', 1000, 0, 'home', 'r1', 0, NULL, 3570533916463097233);
INSERT INTO events VALUES (2, 'e1', 'ü ''2''', 'i1', 'click', 1001, 0.5, 'home', 'r1', 1, NULL, 686735978572453515);
INSERT INTO events VALUES (3, 'e2', 'u1', 'i2', 'click', 1002, 1, 'home', 'r1', 2, NULL, -3498862633808964449);
INSERT INTO events VALUES (4, 'e3', 'ü ''2''', 'i3', 'click', 1003, 1.5, 'home', 'r1', 3, NULL, 351361494570484855);
INSERT INTO events VALUES (5, NULL, 'u1', 'i9', 'buy', 2000, NULL, NULL, NULL, NULL, NULL, 8636987080912712187);
INSERT INTO events VALUES (6, 'e7', 'u1', 'i7', 'buy', 2100, NULL, NULL, NULL, NULL, NULL, -9189053508597393954);
INSERT INTO events VALUES (9, 'late', 'u1', 'i0', 'click', 1000, 0, 'home', 'r1', 0, NULL, 2041627137293106006);
INSERT INTO slates VALUES (1, 'r1', 'g1', 1, 1001, 'u1', 'home', 'b1', '{"item_id":["a","b"],"score":[0.5,0.4],"propensity":[1,1],"sources":[["x"],[]]}');
INSERT INTO slates VALUES (2, 'r2', 'g1', 2, 1002, NULL, 'home', 'b1', '{"item_id":["a","b"],"score":[0.5,0.4],"propensity":[1,1],"sources":[["x"],[]]}');
INSERT INTO slates VALUES (3, 'r4', 'g1', 4, 1004, NULL, 'home', 'b1', '{"item_id":["a","b"],"score":[0.5,0.4],"propensity":[1,1],"sources":[["x"],[]]}');
ALTER TABLE ONLY alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY blocks
    ADD CONSTRAINT blocks_pkey PRIMARY KEY (user_id);
ALTER TABLE ONLY events
    ADD CONSTRAINT events_key_key UNIQUE (key);
ALTER TABLE ONLY events
    ADD CONSTRAINT events_pkey PRIMARY KEY ("offset");
ALTER TABLE ONLY slates
    ADD CONSTRAINT slates_pkey PRIMARY KEY ("offset");
ALTER TABLE ONLY slates
    ADD CONSTRAINT slates_recommendation_id_key UNIQUE (recommendation_id);
CREATE INDEX events_of_user ON events USING btree (user_id, "offset");
CREATE INDEX slates_of_user ON slates USING btree (user_id, "time");
