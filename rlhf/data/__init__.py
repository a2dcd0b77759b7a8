"""Preference data as people have it: read from files or the Hub, recognised, turned into pairs, chosen from."""
