-- The part of the last 24 hours' events that were applied, in percent, by type. Repeats are no events of
-- their own; what waits for another try counts as not applied yet.
SELECT event_type,
       count(*)                                                              AS events,
       count(*) FILTER (WHERE status = 'SUCCESS')                            AS succeeded,
       count(*) FILTER (WHERE status IN ('ERROR', 'FAILED', 'INVALID'))      AS failed,
       round(100.0 * count(*) FILTER (WHERE status = 'SUCCESS') / count(*), 2) AS success_percent
FROM webhook_events
WHERE received_at >= now() - interval '24 hours'
  AND status <> 'DUPLICATE'
GROUP BY event_type
ORDER BY success_percent, events DESC;
