"""One command a published figure. Each prints a table and, as its last line, one JSON object with the same figures."""
