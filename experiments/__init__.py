"""One question a script: reads run directories and answers in text, tables and pictures."""
