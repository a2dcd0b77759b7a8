"""The reward service: scores of an ensemble, their mean and their uncertainty."""
