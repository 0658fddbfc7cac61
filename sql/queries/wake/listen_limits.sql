-- Lets the server end this listening session when the worker has made no statement for $1
-- milliseconds. A frozen worker reads no notifications. Once the sockets are full, its session
-- would stay in a transaction, hold back vacuum, and fill the queue of notifications until no
-- INSERT that notifies could commit (54000). The second limit ends a connection whose peer takes no
-- more bytes.
select set_config('idle_session_timeout', $1, false), set_config('tcp_user_timeout', $1, false)
