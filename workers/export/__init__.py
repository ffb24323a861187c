"""Published clips written out for trainers: audio files with NeMo, Hugging Face and Lhotse manifests beside them."""
