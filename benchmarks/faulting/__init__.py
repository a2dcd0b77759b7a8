"""Parts of bench-faults: processes killed and started again, Redis' own record, a reward service gone ill."""
