"""What every stage shares: batches, stage protocols, the funnel, config and errors."""
