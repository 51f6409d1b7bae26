mod freshness;
mod handshakes;
mod hostile;
mod ingest;
mod negatives;
mod scenes;
mod spellings;
mod vectors;
