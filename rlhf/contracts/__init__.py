"""The messages: pydantic models of every HTTP body, queue message, job and error. No torch, no I/O."""
