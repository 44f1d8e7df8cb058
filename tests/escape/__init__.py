"""The escape corpus: payloads by technique, canaries that they would trip, hosts to try them on."""
