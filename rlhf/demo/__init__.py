"""The demo task *answer briefly and completely*: prompts, preference pairs and the rubric that is its gold judge."""
