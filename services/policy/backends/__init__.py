"""Where the policy's text comes from: the engine in this process, or another server, of TGI's or vLLM's kind."""
