"""What a model's streams need of memory: counted before anything is loaded, and made to fit."""
