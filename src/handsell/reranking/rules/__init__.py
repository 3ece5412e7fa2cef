"""Business rules: boost, bury, pin, include, exclude and quotas with pacing, as data. docs/rules.md is its page."""
