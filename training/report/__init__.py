"""Pages for people: what a run will see (preview) and what it has become (report), each one file of HTML."""
