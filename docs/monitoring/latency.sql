-- How long the last 24 hours' events took from receipt to being stored, in milliseconds, by hour.
SELECT date_trunc('hour', received_at)                                     AS hour,
       count(*)                                                            AS events,
       percentile_cont(0.50) WITHIN GROUP (ORDER BY processing_time)::numeric(12, 1) AS p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY processing_time)::numeric(12, 1) AS p95_ms,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY processing_time)::numeric(12, 1) AS p99_ms,
       max(processing_time)                                                AS longest_ms
FROM webhook_events
WHERE received_at >= now() - interval '24 hours'
  AND processing_time IS NOT NULL
GROUP BY hour
ORDER BY hour DESC;
