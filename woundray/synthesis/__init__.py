"""Pictures in use: drawn, judged one by one, kept with their origin, and drawn again from it."""
