-- What went wrong in the last 7 days: each kind of error, how often, when last, and one event to look at
-- (`arrakis events show ID`).
SELECT error_code,
       event_type,
       status,
       count(*)                                          AS events,
       max(received_at)                                  AS latest,
       (array_agg(request_id ORDER BY received_at DESC))[1] AS example
FROM webhook_events
WHERE received_at >= now() - interval '7 days'
  AND status IN ('ERROR', 'FAILED', 'INVALID', 'PENDING_RETRY')
GROUP BY error_code, event_type, status
ORDER BY events DESC, latest DESC;
