"""Retrieval: the vector index and the latency of each retriever."""
