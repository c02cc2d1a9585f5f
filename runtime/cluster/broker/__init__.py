"""Connect to the hub (an MQTT broker), and write the broker's files and credentials."""
