"""What `handsell plan` computes with, measured."""
