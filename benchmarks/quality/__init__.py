"""Quality: NDCG of the service and of the funnel, ablations, and the price of diversity."""
