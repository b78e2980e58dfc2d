-- The latest 50 events that are not applied, with what is known about each.
SELECT received_at,
       request_id,
       event_type,
       session_id,
       status,
       error_code,
       error_message,
       retry_count,
       retry_after
FROM webhook_events
WHERE status IN ('ERROR', 'FAILED', 'INVALID', 'PENDING_RETRY')
  AND discarded_at IS NULL
ORDER BY id DESC
LIMIT 50;
