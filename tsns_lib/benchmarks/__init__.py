"""What the library costs, measured beside other software in the same run; nothing else imports it."""
