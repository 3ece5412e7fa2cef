"""Experiments whose truth is known: false alarms, coverage, time to verdict, planted defects."""
