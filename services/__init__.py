"""The processes: policy, reward and trainer. They meet only over HTTP, Redis and the artifact store."""
