"""Parts of `benchmarks.generate`: the work, who does it, and how it is timed."""
