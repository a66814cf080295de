"""Records, the table of estimates and its series, intervals, parts and variants, schedules: plain values, without torch."""
