-- Appointments whose intake form was submitted, as patients tells of them: check-in asks here.
create table appointments.intake_completed (
    appointment_id uuid primary key
);
