"""Which training rows push the likelihood of a written answer up or down."""
