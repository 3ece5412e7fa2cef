"""Training: throughput of the neural models and memory of the job drivers."""
