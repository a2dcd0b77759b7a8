"""Panels: ensembles whose members are classifiers of Hugging Face and remote reward servers."""
