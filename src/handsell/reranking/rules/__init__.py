"""Business rules: boost, bury, pin, include, exclude and quotas with pacing, as data; see docs/rules.md."""
