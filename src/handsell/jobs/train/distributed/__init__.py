"""Retrievers that are fitted by several Ray workers; `RetrieverPlugin.job` names the function of each."""
