"""One thin file per simulator: it translates and decides nothing. Each needs its extra only when it is used."""
