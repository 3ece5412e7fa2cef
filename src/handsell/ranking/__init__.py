"""Ranking: from ≤ 1000 candidates to the 50 best; labeled examples, the XGBoost ranker, its calibration."""
