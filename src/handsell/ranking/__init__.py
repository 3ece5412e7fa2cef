"""Ranking: scores up to 1000 candidates and keeps the best; labeled examples, the XGBoost ranker, its calibration."""
