-- Events by day and type over the last 30 days, repeats left out.
SELECT date_trunc('day', received_at AT TIME ZONE 'UTC')::date AS day,
       event_type,
       count(*)                                                AS events
FROM webhook_events
WHERE received_at >= now() - interval '30 days'
  AND status <> 'DUPLICATE'
GROUP BY day, event_type
ORDER BY day DESC, events DESC, event_type;
