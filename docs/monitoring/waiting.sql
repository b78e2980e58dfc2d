-- What is accepted and not applied: how much, and since when. Rows stand here for minutes at the most.
SELECT status,
       count(*)         AS events,
       min(received_at) AS oldest,
       min(retry_after) AS next_try,
       min(claimed_at)  AS claimed_since
FROM webhook_events
WHERE status IN ('PENDING', 'PROCESSING', 'ERROR', 'PENDING_RETRY')
GROUP BY status
ORDER BY status;
