"""One self-contained HTML page about a job of any kind, made from the files that it left and the events it told."""
