"""What the console keeps: people, studies, judgements and datasets, in SQLite or PostgreSQL. No HTTP, no pages."""
