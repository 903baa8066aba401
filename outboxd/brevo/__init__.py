"""Everything that knows Brevo: the client, its rate limits, and a sandbox that behaves alike."""
