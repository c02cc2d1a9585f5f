"""Read facts about this device: its processor, its storage, its available memory, and this process's memory."""
