"""What a site may say: settings, the rule grammar and their loading."""
