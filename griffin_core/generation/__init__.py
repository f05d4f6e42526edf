"""Generation over the seam: sessions, streamed text, stops and state files. ``service`` is the way in."""
