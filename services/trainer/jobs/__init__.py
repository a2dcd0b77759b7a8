"""Jobs: record, lease, events, Celery app and tasks."""
