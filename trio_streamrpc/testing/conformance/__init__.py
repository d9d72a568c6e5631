"""What authors of transports and of codecs run over theirs."""
