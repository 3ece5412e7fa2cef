"""What units did: the logged impressions and events, and the outcomes that follow from them."""
