"""Read facts of this device: its processor, storage, available memory, and this process's memory."""
