"""The evaluation job: an adapter beside a baseline, over HTTP. No torch."""
